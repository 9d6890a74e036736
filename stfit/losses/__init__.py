"""Embeddings -> scalar.

A loss sees named columns of embeddings and, where its format has one, a label; never the encoder:

    loss(columns: {"anchor": [rows, dim], "positive": [rows, dim]}, label: [rows] or None) -> scalar

A negative that a row does not have (rows may have different numbers of them) stands there as a row of exact zeros.
"""
