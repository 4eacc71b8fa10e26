"""ImageDataModule: labelled images from memory, torchvision or a folder."""
