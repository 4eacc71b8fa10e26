"""The `lightning-mi` command."""
