"""Public networks that find and know faces, with weights from packages."""
