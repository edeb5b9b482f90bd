"""Cut-outs of people from the video of a fixed camera, and training videos composed of them."""
