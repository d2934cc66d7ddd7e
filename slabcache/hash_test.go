package slabcache

import (
	"hash/maphash"
	"testing"
	"time"
)

// TestKeysThatHashAlikeAreToldApart: the hash only says where to look. An entry is
// found by its whole key, or one caller's token would stand for another's.
func TestKeysThatHashAlikeAreToldApart(t *testing.T) {
	c := New(Options[int, struct{}]{
		MaxEntries: 100, MaxBytes: 1 << 20,
		Copy:    func(to, from *int) { *to = *from },
		Expires: func(*int) int64 { return time.Now().Add(time.Hour).Unix() },
	})
	one := 1
	c.Put("one", &one, nil, "")
	place := c.find(maphash.String(c.seed, "one"), "one").place
	// What the index would hold if "two" hashed like "one".
	hash := maphash.String(c.seed, "two")
	c.bucketOf(hash)[7].Store(place&^tagBits | hash&tagBits)
	if got, ok := c.Get("two"); ok {
		t.Errorf("another key's value %d is found", *got.Value)
	}
	two := 2
	c.Put("two", &two, nil, "")
	for key, want := range map[string]int{"one": 1, "two": 2} {
		if got, ok := c.Get(key); !ok || *got.Value != want {
			t.Errorf("%q has %v", key, got)
		}
	}
}
