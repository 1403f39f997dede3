"""`python -m diffusion fit|validate|test|predict …`, the same as the command `diffusion`."""

from diffusion.training.cli import main

if __name__ == "__main__":
    main()
