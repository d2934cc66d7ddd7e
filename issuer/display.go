package issuer

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// maxNameRunes is what the name of a client may take up on a page.
const maxNameRunes = 60

// displayName returns the name of a client as pages show it. Names come from
// whoever registered the client, so that they may try to pass for our own
// words: control and formatting characters (line breaks, reversed text, what is
// invisible) go, marks do not pile up, and the length is cut. SECURITY-CASES D-03.
func displayName(client *Client) string {
	if name := cleanText(client.Name); name != "" {
		return name
	}
	return cleanText(client.ID)
}

func cleanText(text string) string { return cleanLongText(text, maxNameRunes) }

// cleanLongText is cleanText with another bound.
func cleanLongText(text string, maxRunes int) string {
	if len(text) > 32*maxRunes { // enough for any name; bounds the work
		text = text[:32*maxRunes]
	}
	var clean strings.Builder
	kept, marks, space := 0, 0, false
	for _, c := range norm.NFC.String(strings.ToValidUTF8(text, "")) {
		switch {
		case unicode.IsSpace(c) || c == '\u2800': // a space in Braille
			space = true
			continue
		case !unicode.IsGraphic(c) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, c) || unicode.Is(unicode.Variation_Selector, c):
			continue
		case unicode.IsMark(c):
			if marks++; marks > 2 || kept == 0 {
				continue
			}
		default:
			marks = 0
		}
		if kept >= maxRunes {
			return clean.String() + "…"
		}
		if space && kept > 0 {
			clean.WriteByte(' ')
		}
		space = false
		clean.WriteRune(c)
		kept++
	}
	return clean.String()
}

// redirectTarget tells a user where the answer will be sent.
type redirectTarget struct {
	Kind string // one of the target constants
	Name string // host, scheme of a private one, or user code
}

const (
	targetSite     = "site"     // https: whoever holds the domain receives the code
	targetLoopback = "loopback" // any program on this computer may listen there
	targetPrivate  = "private"  // any app on this device may have claimed the scheme
	targetDevice   = "device"   // whoever holds the device that shows the code
	targetProvider = "provider" // nobody was sent anywhere: an identity provider said so
)

func targetOf(redirectURI string) redirectTarget {
	u, err := url.Parse(redirectURI)
	switch {
	case err != nil: // was accepted before; say what can be said, trust nothing
		return redirectTarget{targetPrivate, cleanText(redirectURI)}
	case u.Scheme == "https" && u.Host != "":
		return redirectTarget{targetSite, u.Host}
	case u.Scheme == "http" && oauth.IsLoopbackHost(u.Hostname()):
		return redirectTarget{targetLoopback, u.Hostname()}
	}
	return redirectTarget{targetPrivate, u.Scheme + ":"}
}

// loginHint returns what a client sent as login_hint if it may stand in the
// email field.
func loginHint(hint string) string {
	if len(hint) > maxEmailBytes || !utf8.ValidString(hint) {
		return ""
	}
	email, err := NormalizeEmail(hint)
	if err != nil {
		return ""
	}
	return email
}
