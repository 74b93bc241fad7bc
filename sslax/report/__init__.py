"""The report: one HTML page of a run, or of several, that needs no network.

A page is a title and a list of sections, dictionaries that JSON can hold; `static/` draws them.
"""
