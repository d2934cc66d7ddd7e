package issuer

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"

	"github.com/caddy-scope/caddy-scope/oauth"
)

const (
	maxForm       = 64 << 10 // bytes of a request to the token endpoint
	maxParameters = 64
)

// parameters are the parameters of one OAuth request: each at most once, empty
// ones left out. RFC 6749 sections 3.1 and 3.2.
type parameters map[string]string

// readParameters checks and flattens values. Only `resource` may repeat (RFC
// 8707 section 2); its values are returned apart.
func readParameters(values url.Values) (parameters, []string, error) {
	p := make(parameters, len(values))
	var resources []string
	if len(values) > maxParameters {
		return nil, nil, oauth.InvalidRequest("The request has too many parameters.")
	}
	for name, all := range values {
		if name == "resource" {
			for _, v := range all {
				if v != "" {
					resources = append(resources, v)
				}
			}
			continue
		}
		if len(all) > 1 {
			return nil, nil, oauth.InvalidRequest("A parameter is repeated.")
		}
		if all[0] != "" {
			p[name] = all[0]
		}
	}
	return p, resources, nil
}

// readForm reads the body of a POST: application/x-www-form-urlencoded, of
// bounded size. Parameters in the query are refused, because there they would
// stand in logs. RFC 6749 section 3.2.
func readForm(w http.ResponseWriter, r *http.Request) (parameters, []string, error) {
	if r.URL.RawQuery != "" {
		return nil, nil, oauth.InvalidRequest("Parameters belong in the body, not in the query.")
	}
	types := r.Header.Values("Content-Type")
	if len(types) != 1 {
		return nil, nil, oauth.InvalidRequest("The body must be application/x-www-form-urlencoded.")
	}
	mediaType, _, err := mime.ParseMediaType(types[0])
	if err != nil || mediaType != "application/x-www-form-urlencoded" || r.Header.Get("Content-Encoding") != "" {
		return nil, nil, oauth.InvalidRequest("The body must be application/x-www-form-urlencoded.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		return nil, nil, unreadBody(err)
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, nil, oauth.InvalidRequest("The body is not well-formed.")
	}
	return readParameters(values)
}

// unreadBody is what the client hears of a body that could not be read.
func unreadBody(err error) *oauth.Error {
	e := &oauth.Error{Status: unreadStatus(err), Code: oauth.CodeInvalidRequest, Description: "The body could not be read."}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		e.Status, e.Description = http.StatusRequestEntityTooLarge, "The body is too large."
	case e.Status == http.StatusRequestTimeout:
		e.Description = "The body took too long to arrive."
	}
	return e
}
