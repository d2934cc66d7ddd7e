package caddymodule

import (
	"io"
	"net/http"

	"github.com/caddy-scope/caddy-scope/validator"
)

// stripTrailers keeps identity out of the trailers, which arrive after the gate
// has decided: net/http adds whatever stands behind the body to r.Trailer, also
// fields that were never announced, and reverse proxies forward it.
// SECURITY-CASES H-04.
func stripTrailers(r *http.Request, headers *validator.HeaderPolicy) {
	if r.Trailer == nil || r.Body == nil { // none announced: net/http keeps them from us
		return
	}
	r.Body = &strippedBody{ReadCloser: r.Body, trailer: r.Trailer, headers: headers}
}

// strippedBody cleans the trailers at the moment they are there.
type strippedBody struct {
	io.ReadCloser
	trailer http.Header
	headers *validator.HeaderPolicy
}

func (b *strippedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.headers.Strip(&http.Request{Trailer: b.trailer})
	}
	return n, err
}
