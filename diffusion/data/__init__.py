"""Data modules: pictures and points to learn, in batches that any number of processes agree on."""

from diffusion.data.avatars import Avatars as Avatars
from diffusion.data.base import Images as Images
from diffusion.data.binary import BinaryDigits as BinaryDigits, Heartbeat as Heartbeat
from diffusion.data.captions.alt_text import AltText as AltText
from diffusion.data.captions.base import CaptionSource as CaptionSource
from diffusion.data.captions.caption_file import CaptionFile as CaptionFile
from diffusion.data.cifar10 import CIFAR10 as CIFAR10
from diffusion.data.controls.base import Control as Control
from diffusion.data.controls.beside import Beside as Beside
from diffusion.data.controls.canny import Canny as Canny
from diffusion.data.controls.colour_blocks import ColourBlocks as ColourBlocks
from diffusion.data.controls.drawn import Drawn as Drawn
from diffusion.data.controls.low_pass import LowPass as LowPass
from diffusion.data.controls.outline import Outline as Outline
from diffusion.data.controls.silhouette import Silhouette as Silhouette
from diffusion.data.digits import Digits as Digits
from diffusion.data.downloaded import Downloaded as Downloaded
from diffusion.data.emoji import Emoji as Emoji
from diffusion.data.identities.base import Identities as Identities
from diffusion.data.identities.faces import Faces as Faces
from diffusion.data.identities.identity_folder import IdentityFolder as IdentityFolder
from diffusion.data.identities.key_points import KeyPoints as KeyPoints
from diffusion.data.image_folder import ImageFolder as ImageFolder, Upsampling as Upsampling
from diffusion.data.image_text import ImageText as ImageText
from diffusion.data.mnist import MNIST as MNIST, FashionMNIST as FashionMNIST
from diffusion.data.sets import ImageSet as ImageSet, Memory as Memory, Versions as Versions
from diffusion.data.synthetic.circles import Circles as Circles
from diffusion.data.synthetic.swiss_roll import SwissRoll as SwissRoll
from diffusion.data.synthetic.tree import Tree as Tree
