"""What is made of results: tables, comparisons with paired tests, plots, one page."""
