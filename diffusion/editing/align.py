"""`diffusion align`: photographs of persons, brought to where the data of swappers have faces."""

from pathlib import Path

from rich import get_console


def align(*, folder: str, output: str, size: int = 128, root: str = "data") -> None:
    """Writes the face of each photograph of a folder, aligned by five points, for IdentityFolder.

    Subfolders are persons and stay so. Photographs without a face, with several, or of a
    profile are named and left out.

    Args:
        folder: Where they are.
        output: The folder to write, which must not exist.
        size: Height and width of the faces.
        root: Folder of the package with the face finder's weights.
    """
    from diffusion.common.files import folder_aside
    from diffusion.common.pixels import quantize, scaled
    from diffusion.common.progress import bar
    from diffusion.common.validate import check_counts, first_few
    from diffusion.data.reading.decoding import read_whole
    from diffusion.data.reading.listing import list_pictures
    from diffusion.editing.find_faces import find_faces
    from diffusion.networks.identity.face_finder import FaceFinder
    from diffusion.plots.pictures import save
    from diffusion.systems.swapping import paste_back

    check_counts("align", least=16, most=1024, size=size)
    source = Path(folder).expanduser()
    names, left = list_pictures(source, "folder").names, list[str]()
    finder = FaceFinder(root)
    with folder_aside(Path(output).expanduser()) as aside, bar("faces") as progress:
        for name in progress.track(names, description="faces"):
            try:
                picture = scaled(read_whole(source / name))
                (face,) = find_faces(finder, picture, name, most=1)
            except ValueError:
                left.append(name)
                continue
            path = aside / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save(quantize(paste_back.aligned_face(picture, face.points, size)[0][0]), path)
        if len(left) == len(names):
            raise ValueError(f"folder: {folder}; expected photographs of one face each, none is")
    if left:
        get_console().print(
            f"left out, without exactly one face from the front: {first_few(left, 10)}"
        )
    get_console().print(f"wrote {output}: {len(names) - len(left)} faces of {len(names)} pictures")
