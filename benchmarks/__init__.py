"""How fast and how frugal is tunediff, beside the naive way of doing the same? (`make bench`)"""
