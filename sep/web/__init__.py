"""The page of `sep serve`."""
