"""What happens around training: averages, pictures, measurements, files."""
