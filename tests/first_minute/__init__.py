"""The README's two commands in fresh copies of this repository, as newcomers come to them."""
