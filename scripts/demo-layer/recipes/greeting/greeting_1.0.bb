SUMMARY = "Says hello"
SRC_URI = "file://greeting.c file://Makefile"
