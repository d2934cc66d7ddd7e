package caddymodule

import (
	"fmt"
	"testing"
)

func TestMisfitsAreToldOfOnceAndBounded(t *testing.T) {
	var m misfits
	for range 2 {
		for n := range 2 * maxMisfits {
			m.isNews(fmt.Sprint("op_", n), nil, "why")
			if len(m.told) > maxMisfits {
				t.Fatalf("%d are kept", len(m.told))
			}
		}
	}
	if last := fmt.Sprint("op_", 2*maxMisfits-1); m.isNews(last, nil, "why") || !m.isNews(last, nil, "why else") || !m.isNews(last, []byte("{}"), "why else") {
		t.Error("the last one is told of again, or not told of when it changes")
	}
}
