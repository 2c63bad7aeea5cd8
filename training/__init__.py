"""How models that come with VISIT were made. Not part of the package."""
