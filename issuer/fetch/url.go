package fetch

import (
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// maxURL bounds an address, in bytes.
const maxURL = 2048

// CheckURL checks the form of the address of a document: https, a host, a path,
// nothing that two readers could take apart differently. It looks nothing up.
// draft-ietf-oauth-client-id-metadata-document section 3.
func CheckURL(raw string) (*url.URL, error) {
	if len(raw) > maxURL {
		return nil, errors.New("it is too long")
	}
	for i := range len(raw) {
		if c := raw[i]; c <= ' ' || c > '~' || strings.IndexByte(`"<>\^`+"`{|}", c) >= 0 {
			return nil, errors.New("it has a character that must be escaped")
		}
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("it is not a URL")
	case u.Scheme != "https" || !strings.HasPrefix(raw, "https://"):
		return nil, errors.New("its scheme is not https")
	case u.User != nil || strings.Contains(u.Host, "@"):
		return nil, errors.New("it holds a user name")
	case strings.Contains(raw, "#"):
		return nil, errors.New("it has a fragment")
	case u.Path == "" || u.Path == "/":
		return nil, errors.New("it has no path")
	}
	for segment := range strings.SplitSeq(u.Path, "/") { // decoded: %2e is a dot too
		if segment == "." || segment == ".." {
			return nil, errors.New("it has a dot segment")
		}
	}
	if err := checkPort(u); err != nil {
		return nil, err
	}
	return u, checkHost(u)
}

// checkPort refuses a port that is spelt in more than one way.
func checkPort(u *url.URL) error {
	text := u.Port()
	if text == "" {
		if strings.HasSuffix(u.Host, ":") {
			return errors.New("its port is empty")
		}
		return nil
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 || strconv.FormatUint(port, 10) != text {
		return errors.New("its port is not a number from 1 to 65535")
	}
	return nil
}

// checkHost refuses names that a resolver may read as an address: 2130706433,
// 0x7f.1 and 127.1 are all 127.0.0.1 to some. Addresses have one spelling.
func checkHost(u *url.URL) error {
	host := u.Hostname()
	if address, err := netip.ParseAddr(host); err == nil {
		if address.Zone() != "" || address.String() != host {
			return errors.New("its address is not in the canonical form")
		}
		return nil
	}
	if host == "" || len(host) > 253 {
		return errors.New("it has no host")
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if !isLabel(label) {
			return errors.New("its host is not a DNS name in lower case")
		}
	}
	if last := labels[len(labels)-1]; last[0] >= '0' && last[0] <= '9' {
		return errors.New("its host ends in a number")
	}
	return nil
}

// isLabel reports whether label is a part of a host name. RFC 1123 section 2.1,
// and the underscore that some names have.
func isLabel(label string) bool {
	for i := range len(label) {
		c := label[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-'
}
