package login

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Return is how a browser gets to the app's sign-in page and back.
type Return struct {
	// SignIn is the app's sign-in page. Required.
	SignIn string
	// Parameter of its query that takes the address to come back to. Empty:
	// "redirect_url".
	Parameter string
}

func (r *Return) check() error {
	if r.SignIn == "" {
		return errors.New("sign_in is missing: the app's own sign-in page")
	}
	if err := checkURL("sign_in", r.SignIn); err != nil {
		return err
	}
	if r.Parameter == "" {
		r.Parameter = "redirect_url"
	}
	u, _ := url.Parse(r.SignIn) // checked above
	if query, err := url.ParseQuery(u.RawQuery); err != nil || query.Has(r.Parameter) {
		return fmt.Errorf("sign_in %q has a parameter %s already, which takes the address to come back to", r.SignIn, r.Parameter)
	}
	return nil
}

// address returns the sign-in page that comes back to returnTo.
func (r *Return) address(returnTo string) string {
	u, _ := url.Parse(r.SignIn) // checked when it was made
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += url.Values{r.Parameter: {returnTo}}.Encode()
	return u.String()
}

// maxPieces bounds the pieces of a cookie.
const maxPieces = 8

// cookieValue returns the value of the app's cookie, put together from its pieces
// name.0, name.1 and so on if it came in such. One that came twice with different
// values is none: somebody else, on a sibling domain perhaps, has planted one of
// them.
func cookieValue(header http.Header, name string) (string, error) {
	r := http.Request{Header: header}
	one := func(name string) (value string, found bool, err error) {
		for _, c := range r.CookiesNamed(name) {
			if found && c.Value != value {
				return "", false, errors.New("the cookie is there twice, with different values")
			}
			value, found = c.Value, true
		}
		return value, found, nil
	}
	value, found, err := one(name)
	if err != nil || found && value != "" {
		return value, err
	}
	var whole strings.Builder
	for i := range maxPieces {
		piece, found, err := one(name + "." + strconv.Itoa(i))
		if err != nil {
			return "", err
		}
		if !found {
			break
		}
		whole.WriteString(piece)
	}
	if whole.Len() == 0 {
		return "", errors.New("the cookie is not there")
	}
	return whole.String(), nil
}

// isHeaderName also tells names of cookies: both are tokens of RFC 9110.
func isHeaderName(name string) bool { return httpguts.ValidHeaderFieldName(name) }

// isOurCookie tells the cookies of this server's pages, which apps never see.
func isOurCookie(name string) bool {
	return slices.Contains([]string{"oauth_login", "oauth_browser"}, strings.TrimPrefix(name, "__Host-"))
}
