"""`gradsim demo`: real words in 36 languages, measured, grouped, and trained with and without gradient surgery."""
