package caddymodule

import (
	"fmt"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/login"
)

// AppSettings are what the logins of the owner's own app have in common.
type AppSettings struct {
	// Name tells this login from others; it stands in the address that the app
	// sends browsers back to. Default: the name of the method.
	Name string `json:"name,omitempty"`
	// Label is what users know the app as. Default: the host of SignIn.
	Label string `json:"label,omitempty"`
	// SignIn is the app's own sign-in page, to which browsers are sent that are not
	// signed in there. Placeholders. Required.
	SignIn string `json:"sign_in,omitempty"`
	// ReturnParameter of the sign-in page takes the address to come back to,
	// <issuer>/oauth/login/<name>?state=…. Default: "redirect_url".
	ReturnParameter string `json:"return_parameter,omitempty"`

	method issuer.LoginMethod
}

func (a *AppSettings) words() map[string]word {
	return map[string]word{
		"name":             once(text(&a.Name)),
		"label":            once(text(&a.Label)),
		"sign_in":          once(text(&a.SignIn)),
		"return_parameter": once(text(&a.ReturnParameter)),
	}
}

// back resolves how browsers get to the app and back.
func (a *AppSettings) back() (login.Return, error) {
	if a.SignIn == "" {
		return login.Return{}, fmt.Errorf("sign_in is missing: the app's own sign-in page, such as https://app.example.com/sign-in")
	}
	signIn, err := resolve("sign_in", a.SignIn)
	return login.Return{SignIn: signIn, Parameter: a.ReturnParameter}, err
}

// use makes the app a login method.
func (a *AppSettings) use(method string, back login.Return, app issuer.App) {
	a.method = issuer.LoginMethod{Name: orDefault(a.Name, method), Label: orDefault(a.Label, hostOf(back.SignIn)), App: app}
}

// ConfigureLogin implements LoginMethod.
func (a *AppSettings) ConfigureLogin(config *issuer.Config) error { return addMethod(config, a.method) }

// mergeWords puts the words of several parts of a block together.
func mergeWords(parts ...map[string]word) map[string]word {
	all := make(map[string]word)
	for _, part := range parts {
		for name, w := range part {
			all[name] = w
		}
	}
	return all
}

// noArguments refuses what stands on the line of a method that takes nothing.
func noArguments(d *caddyfile.Dispenser, method string) error {
	if d.NextArg() {
		return d.Errf("login %s: unexpected %q", method, d.Val())
	}
	return nil
}
