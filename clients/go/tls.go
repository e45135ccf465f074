package sdgrpc

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"google.golang.org/grpc/credentials"
)

// WithTLS encrypts the connection. An empty configuration trusts the system's authorities.
func WithTLS(config *tls.Config) Option {
	return func(chosen *options) { chosen.credentials = credentials.NewTLS(config) }
}

// TLSFiles are PEM files for a server with TLS. All are optional.
type TLSFiles struct {
	// CA are the authorities to trust instead of the system's.
	CA string
	// Certificate and Key are the client's own, where the server asks for them.
	Certificate, Key string
	// ServerName is the name in the server's certificate if it is not the target's.
	ServerName string
}

// Config reads the files.
func (f TLSFiles) Config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.ServerName}
	if f.CA != "" {
		authorities, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(authorities) {
			return nil, fmt.Errorf("%s: holds no PEM certificate", f.CA)
		}
	}
	if (f.Certificate == "") != (f.Key == "") {
		return nil, errors.New("a client certificate needs both Certificate and Key")
	}
	if f.Certificate != "" {
		own, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{own}
	}
	return config, nil
}
