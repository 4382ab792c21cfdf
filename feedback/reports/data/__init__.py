"""All data of a project in lists that can be searched, filtered and sorted, and the history of single rows.

For managers: the lists have sources, gold and everybody's rankings. No list counts its rows, and none skips rows by an
offset, so a page of a million rows takes as long as one of a thousand.
"""
