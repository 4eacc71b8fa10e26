"""Labelled images from memory, torchvision or a folder."""
