"""The methods: what each adds to a backbone, and how it learns from image-level labels."""
