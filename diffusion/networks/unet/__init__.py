"""The UNet of DDPM, Improved DDPM and ADM, and what is built from its parts."""
