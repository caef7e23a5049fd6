//! Tests of the socket device over real rings and sockets.
