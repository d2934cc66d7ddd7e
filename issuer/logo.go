package issuer

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
)

// maxLogo bounds a logo, in bytes: each page carries it, so that no browser asks
// anybody for it.
const maxLogo = 64 << 10

// Logo is a picture as pages show it.
type Logo struct{ url string }

// NewLogo reads a PNG, JPEG, GIF, WebP or SVG of at most 64 KiB. In a page it is
// an image: a script in an SVG does not run there, and loads nothing.
func NewLogo(data []byte) (*Logo, error) {
	if len(data) > maxLogo {
		return nil, fmt.Errorf("is larger than %d KiB; every page carries it", maxLogo>>10)
	}
	kind := http.DetectContentType(data)
	switch kind {
	case "image/png", "image/jpeg", "image/gif", "image/webp":
	default:
		if !isSVG(data) {
			return nil, errors.New("is not a PNG, JPEG, GIF, WebP or SVG")
		}
		kind = "image/svg+xml"
	}
	return &Logo{"data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(data)}, nil
}

// isSVG reports whether the first element of well-formed XML is svg.
func isSVG(data []byte) bool {
	decoder := xml.NewDecoder(bytes.NewReader(data))
	first := ""
	for {
		token, err := decoder.Token()
		if err != nil {
			return errors.Is(err, io.EOF) && first == "svg"
		}
		if start, ok := token.(xml.StartElement); ok && first == "" {
			first = start.Name.Local
		}
	}
}

// source is the logo for the attribute src; empty: there is none.
func (l *Logo) source() template.URL {
	if l == nil {
		return ""
	}
	return template.URL(l.url)
}

func (l *Logo) sourceSet() template.Srcset { return template.Srcset(l.source()) }
