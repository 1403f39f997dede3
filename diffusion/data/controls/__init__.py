"""What a picture is controlled by, computed from the picture itself."""
