package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// What the document shows is what was measured.
func TestDocumentsAreDrawnFromTheirResults(t *testing.T) {
	const docs = "../docs"
	r, err := readResults[results](filepath.Join(docs, "performance.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go", "caddy", "postgresql", "nginx"} {
		if r.Versions[name] == "" {
			t.Errorf("the results do not say which %s was measured", name)
		}
	}
	drawn, err := r.drawing(docs)
	if err != nil {
		t.Fatal(err)
	}
	scale, err := readResults[scaleResults](filepath.Join(docs, "scale.json"))
	if err != nil {
		t.Fatal(err)
	}
	if drawn["scaling.md"], err = withFigures(docs, "scaling.md", scale.print); err != nil {
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
