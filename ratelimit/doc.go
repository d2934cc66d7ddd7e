// Package ratelimit bounds how often a caller may do a thing: so many times at
// once, and as many again in each window, evenly. It is the generic cell rate
// algorithm (ITU-T I.371), a leaky bucket that is kept as one instant for each
// key: the moment at which the caller has its whole quota again.
//
// In any span of time t, a key is let through at most Quota + t·Quota/Window
// times by one table. Nothing is taken by what is refused.
//
// A Table is one block of memory that never grows, whatever callers send. When
// many keys meet in one place of it, the one that has spent least of its quota is
// forgotten: an exhausted caller begins anew only where as many others as a place
// holds have spent as much, each a quota of its own.
//
// Nodes decide by themselves and tell one another through an Exchange what their
// callers have spent; see Share for what that leaves open.
//
// What it says to clients is draft-ietf-httpapi-ratelimit-headers-10.
package ratelimit
