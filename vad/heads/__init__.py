"""Heads: features -> raw scores. One file per kind; a head file is inference maths and its ``Settings``."""
