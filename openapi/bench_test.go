package openapi_test

import (
	"compress/gzip"
	"io"
	"os"
	"testing"

	"github.com/caddy-scope/caddy-scope/openapi"
)

// BenchmarkImport reads a document of some hundreds of operations, and what each
// requires.
func BenchmarkImport(b *testing.B) {
	packed, err := os.Open("testdata/okta-management.yaml.gz")
	if err != nil {
		b.Fatal(err)
	}
	defer packed.Close()
	reader, err := gzip.NewReader(packed)
	if err != nil {
		b.Fatal(err)
	}
	content, err := io.ReadAll(reader)
	if err != nil {
		b.Fatal(err)
	}
	count := 0
	for b.Loop() {
		d, err := openapi.Parse("api.yaml", content)
		if err != nil {
			b.Fatal(err)
		}
		operations, err := d.Operations("")
		if err != nil {
			b.Fatal(err)
		}
		security, err := d.Security([]string{"oauth2"})
		if err != nil {
			b.Fatal(err)
		}
		count = 0
		for _, o := range operations {
			if _, err := security.Of(o); err == nil && o.Problem == nil {
				count++
			}
		}
	}
	b.ReportMetric(float64(count), "operations")
	if count < 300 {
		b.Fatalf("%d operations", count)
	}
}
