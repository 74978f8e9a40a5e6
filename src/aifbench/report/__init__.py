"""Showing it: tables, figures and self-contained pages, made from stored records and samples."""
