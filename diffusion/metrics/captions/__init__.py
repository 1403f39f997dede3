"""How well images show what their captions say: by a CLIP, by colours, by class."""
