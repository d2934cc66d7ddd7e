package slabcache

import (
	"hash/maphash"
	"testing"
	"time"
)

// TestKeysThatHashAlikeAreToldApart: the hash only says where to look. An entry is
// found by its whole key, or one caller's token would stand for another's.
func TestKeysThatHashAlikeAreToldApart(t *testing.T) {
	c := New(Options[int]{
		MaxEntries: 100, MaxBytes: 1 << 20,
		Text:    func(*int) int { return 0 },
		Copy:    func(to, from *int, _ *Text) { *to = *from },
		Expires: func(*int) int64 { return time.Now().Add(time.Hour).Unix() },
	})
	one := 1
	c.Put("one", &one)
	place, _ := c.find(maphash.String(c.seed, "one"), "one")
	// What the index would hold if "two" hashed like "one".
	hash := maphash.String(c.seed, "two")
	c.bucketOf(hash)[7].Store(place.Load()&^tagBits | hash&tagBits)
	if got, ok := c.Get("two"); ok {
		t.Errorf("another key's value %d is found", *got)
	}
	two := 2
	c.Put("two", &two)
	for key, want := range map[string]int{"one": 1, "two": 2} {
		if got, ok := c.Get(key); !ok || *got != want {
			t.Errorf("%q has %v", key, got)
		}
	}
}
