"""What tests of several folders share: the engines in a child process, meanings from RFC 9669's text."""
