"""Attention over a prompt that its completions share: layouts, packed rows, kernels."""
