"""Every fake of the tests: each speaks the real thing's protocol, from captured output where there is any."""
