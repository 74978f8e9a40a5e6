"""Studies: experiments as files, their repetition, and what became of every trial."""
