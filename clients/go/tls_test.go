package sdgrpc_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"example.com/sdgrpc"
	pb "example.com/sdgrpc/v1"
)

// selfSigned writes a certificate for the name `sdgrpc.test`, its own authority, and its key as PEM files.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sdgrpc.test"}, DNSNames: []string{"sdgrpc.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for path, block := range map[string]*pem.Block{
		certificate: {Type: "CERTIFICATE", Bytes: signed}, key: {Type: "PRIVATE KEY", Bytes: encoded},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

// Both sides show a certificate that the other trusts; without the client's, or in plain text, no call is made.
func TestTLS(t *testing.T) {
	certificate, key := selfSigned(t)
	both := sdgrpc.TLSFiles{CA: certificate, Certificate: certificate, Key: key, ServerName: "sdgrpc.test"}
	config, err := both.Config()
	if err != nil {
		t.Fatal(err)
	}
	mutual := &tls.Config{
		Certificates: config.Certificates, ClientCAs: config.RootCAs, ClientAuth: tls.RequireAndVerifyClientCert,
	}
	target := telling(finishedEvent()).serve(t, mutual)
	serverOnly, err := sdgrpc.TLSFiles{CA: certificate, ServerName: "sdgrpc.test"}.Config()
	if err != nil {
		t.Fatal(err)
	}
	for _, each := range []struct {
		options []sdgrpc.Option
		works   bool
	}{
		{[]sdgrpc.Option{sdgrpc.WithTLS(config)}, true},
		{[]sdgrpc.Option{sdgrpc.WithTLS(serverOnly)}, false},
		{nil, false},
	} {
		client, err := sdgrpc.New(target, each.options...)
		if err != nil {
			t.Fatal(err)
		}
		_, err = sdgrpc.Collect(client.Generate(testContext(t), &pb.GenerateRequest{Prompt: "a star"}))
		if (err == nil) != each.works {
			t.Errorf("%v", err)
		}
		client.Close()
	}
}

// Files that are missing, of another kind or without their other half are errors.
func TestTLSFiles(t *testing.T) {
	certificate, key := selfSigned(t)
	for _, files := range []sdgrpc.TLSFiles{
		{CA: "nowhere.pem"}, {CA: key}, {Certificate: certificate}, {Certificate: key, Key: certificate},
	} {
		if _, err := files.Config(); err == nil {
			t.Errorf("%+v was taken", files)
		}
	}
}
