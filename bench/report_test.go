package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// What the document shows is what was measured.
func TestPerformanceDocumentIsDrawnFromItsResults(t *testing.T) {
	const docs = "../docs"
	r, err := readResults(filepath.Join(docs, "performance.json"))
	if err != nil {
		t.Fatal(err)
	}
	drawn, err := r.drawing(docs)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range drawn {
		got, err := os.ReadFile(filepath.Join(docs, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what its results say: run `make performance`", name)
		}
	}
}

// Every scenario that was measured is explained.
func TestPerformanceDocumentExplainsItsScenarios(t *testing.T) {
	document, err := os.ReadFile("../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scenarios {
		if !bytes.Contains(document, []byte("| `"+s.name+"` | "+s.description+" |")) {
			t.Errorf("no row for %s: %s", s.name, s.description)
		}
	}
}
