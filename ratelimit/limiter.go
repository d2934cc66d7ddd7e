package ratelimit

import (
	"crypto/sha256"
	"net/netip"
)

// Limiter counts callers in a table.
type Limiter struct {
	table  *Table
	secret [32]byte
}

// NewLimiter returns a limiter. Keys are made under secret, which nodes that share
// what they count have in common: who reads the database does not learn from them
// who called, and nobody can choose them.
func NewLimiter(table *Table, secret [32]byte) *Limiter { return &Limiter{table, secret} }

// Key names the caller under the limit.
func (l *Limiter) Key(limit *Limit, caller string) Key {
	var buffer [160]byte // on the stack, for callers of at most 112 bytes
	text := append(append(append(buffer[:0], l.secret[:]...), limit.id[:]...), caller...)
	digest := sha256.Sum256(text)
	return Key(digest[:16])
}

// Use is a unit that is taken of a limit.
type Use struct {
	Limit *Limit
	Key   Key
}

// Take takes a unit of each, or of none: the states are then that of the first
// that is exhausted. It fills states, which are as many as uses.
func (l *Limiter) Take(uses []Use, states []State) []State {
	for i, use := range uses {
		states[i] = l.table.Take(use.Key, use.Limit)
		if !states[i].Allowed {
			for _, taken := range uses[:i] {
				l.table.Return(taken.Key, taken.Limit)
			}
			return states[i : i+1]
		}
	}
	return states[:len(uses)]
}

// TakeOne takes a unit of one limit.
func (l *Limiter) TakeOne(limit *Limit, caller string) State {
	return l.table.Take(l.Key(limit, caller), limit)
}

// Peek returns how the caller stands, and takes nothing.
func (l *Limiter) Peek(limit *Limit, caller string) State {
	return l.table.Peek(l.Key(limit, caller), limit)
}

// Network is what callers are counted by: an IPv4 address, or the /64 that an IPv6
// one is in, as a subscriber has no less.
func Network(address netip.Addr) netip.Prefix {
	address = address.Unmap()
	bits := address.BitLen()
	if address.Is6() {
		bits = 64
	}
	prefix, _ := address.WithZone("").Prefix(bits)
	return prefix
}
