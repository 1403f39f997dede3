"""Commands that choose something of a trained model by what it draws."""
