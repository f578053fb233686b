#!/bin/sh
# Counts words: reads text until the client has ended its direction, and answers with the five commonest words of it.
tr -cs '[:alpha:]' '\n' | tr '[:upper:]' '[:lower:]' | grep . | sort | uniq -c | sort -k 1,1nr -k 2 | head -n 5
