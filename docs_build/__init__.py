"""Build of the documentation site: hooks of MkDocs, and pages made from the package."""
