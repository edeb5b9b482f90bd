"""People cut out of a video of a fixed camera, and training videos composed of them."""
