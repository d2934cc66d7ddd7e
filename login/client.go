package login

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// DefaultTimeout bounds one request to a provider or app.
const DefaultTimeout = 5 * time.Second

// maxBody bounds what is read of an answer, in bytes: documents of providers,
// key sets.
const maxBody = 1 << 20

var errTooLarge = errors.New("the answer is larger than is read")

// newClient returns a client that follows no redirect, reads at most limit bytes
// of an answer and gives up after timeout; zero: DefaultTimeout.
func newClient(timeout time.Duration, limit int64) *http.Client {
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = 64 << 10
	return &http.Client{
		Timeout:       timeout,
		Transport:     boundedTransport{transport, limit},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type boundedTransport struct {
	next  http.RoundTripper
	limit int64
}

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	response.Body = &boundedBody{response.Body, t.limit}
	return response, nil
}

// boundedBody fails where a body goes on too long: a cut answer must not pass
// for a whole one.
type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}
